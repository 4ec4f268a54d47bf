"""Fields of transformers' TrainingArguments that have no meaning here: what to use instead, in one place."""

from __future__ import annotations

from collections.abc import Mapping

_ZERO = 'write "zero_optimization" in deepspeedConfig: DeepSpeed distributes the training'
_DDP = "leave it out: DeepSpeed connects the workers"
_DATA = "leave it out: data is read from token shards, which need no loader"
_HUB = "leave it out: the result is a folder; huggingface_hub uploads one"
_FOLDER = "write localPathPrefix (the folder of jobs) and name (the job)"
_PRECISION = "write bf16, or fp16 on a GPU"
_DEVICE = "leave it out: workers use GPUs if the cluster has any; num_gpus (setup) says how many"
_LOGGED = "leave it out: metrics.jsonl gets every step; logging_steps thins what is printed and TensorBoard"
_METRICS = "leave it out: eval_loss and eval_accuracy are recorded"
_EVERY_STEP = "leave it out: the data order follows from seed and step, so a resumed run skips nothing"
_COMPILE = "write torch_compile; its backend is inductor"
_LENGTH = "leave it out: lengths are known from the tokens"
_QLORA = 'write finetuning_type="qlora"'
_ADAPTER = "write sft/… to fine-tune with an adapter"
_FIT_FIRST = 'leave it out: an adapter fits the base as it is; sft.finetuning_type="full" gives it more tokens'
_BATCH = "write per_device_train_batch_size"

REFUSED: Mapping[str, str] = {
    "accelerator_config": _DDP,
    "activation_checkpointing": "write gradient_checkpointing",
    "activation_checkpointing_kwargs": "write gradient_checkpointing; it has no options",
    "auto_find_batch_size": _BATCH,
    "average_tokens_across_devices": "leave it out: the loss is always the mean over all workers' tokens",
    "batch_eval_metrics": _METRICS,
    "batch_size": _BATCH,
    "bf16_full_eval": "leave it out: evaluation computes in the precision of training",
    "dataloader_drop_last": "leave it out: every row is used once an epoch, a partial last step included",
    "dataloader_in_order": _DATA,
    "dataloader_multiprocessing_context": _DATA,
    "dataloader_num_workers": _DATA,
    "dataloader_persistent_workers": _DATA,
    "dataloader_pin_memory": _DATA,
    "dataloader_prefetch_factor": _DATA,
    "ddp_backend": _DDP,
    "ddp_broadcast_buffers": _DDP,
    "ddp_bucket_cap_mb": 'write "zero_optimization": {"reduce_bucket_size": …} in deepspeedConfig',
    "ddp_find_unused_parameters": _DDP,
    "ddp_static_graph": _DDP,
    "debug": 'leave it out: "%byzerllm logs NAME" shows what each worker printed',
    "deepspeed": "write deepspeedConfig",
    "disable_tqdm": "leave it out: a job has a card and a chart, no progress bar",
    "dispatch_batches": _DATA,
    "do_eval": "write eval_strategy",
    "do_predict": 'leave it out: deploy the result with action="infer" and ask it',
    "do_train": "leave it out: a job trains",
    "enable_jit_checkpoint": "write save_steps; stopping a job saves a checkpoint",
    "epochs": "write num_train_epochs",
    "eval_accumulation_steps": "leave it out: evaluation keeps no predictions",
    "eval_delay": "write eval_strategy and eval_steps",
    "eval_do_concat_batches": _METRICS,
    "eval_on_start": "write eval_steps; the first evaluation is after so many steps",
    "eval_use_gather_object": _METRICS,
    "fp16_backend": _PRECISION,
    "fp16_full_eval": "leave it out: evaluation computes in the precision of training",
    "fp16_opt_level": _PRECISION,
    "fsdp": _ZERO,
    "fsdp_config": _ZERO,
    "fsdp_min_num_params": _ZERO,
    "fsdp_transformer_layer_cls_to_wrap": _ZERO,
    "full_determinism": "leave it out: on a CPU a run repeats bit for bit with the same seed",
    "generation_config": 'leave it out: deploy the result with action="infer" and ask it',
    "generation_max_length": 'leave it out: deploy the result with action="infer" and ask it',
    "generation_num_beams": 'leave it out: deploy the result with action="infer" and ask it',
    "gradient_checkpointing_kwargs": "write gradient_checkpointing; it has no options",
    "greater_is_better": "leave it out: it follows from metric_for_best_model",
    "half_precision_backend": _PRECISION,
    "hub_always_push": _HUB,
    "hub_model_id": _HUB,
    "hub_private_repo": _HUB,
    "hub_revision": _HUB,
    "hub_strategy": _HUB,
    "hub_token": _HUB,
    "ignore_data_skip": _EVERY_STEP,
    "include_for_metrics": _METRICS,
    "include_inputs_for_metrics": _METRICS,
    "include_num_input_tokens_seen": "leave it out: metrics.jsonl has the tokens of every step",
    "include_tokens_per_second": "leave it out: metrics.jsonl has the tokens per second of every step",
    "jit_mode_eval": _COMPILE,
    "label_names": "leave it out: the loss is on the assistant's tokens, or on all of a text",
    "label_smoothing_factor": "leave it out: the loss is plain cross entropy",
    "length_column_name": _LENGTH,
    "liger_kernel_config": "leave it out: Liger's kernels are not used",
    "local_rank": _DDP,
    "log_level": _LOGGED,
    "log_level_replica": _LOGGED,
    "log_on_each_node": _LOGGED,
    "logging_dir": "leave it out: TensorBoard's files are in the job's folder",
    "logging_first_step": _LOGGED,
    "logging_nan_inf_filter": "leave it out: a loss that is not a number stops the job and says its step",
    "logging_strategy": "write logging_steps",
    "lr": "write learning_rate",
    "mp_parameters": _ZERO,
    "no_cuda": _DEVICE,
    "optim_args": "write adam_beta1, adam_beta2, adam_epsilon and weight_decay",
    "optim_target_modules": "leave it out: it belongs to optimizers that are not offered; optim names those that are",
    "output_dir": _FOLDER,
    "overwrite_output_dir": "write another name: a job never overwrites one",
    "parallelism_config": _ZERO,
    "past_index": "leave it out: it belongs to models that are not offered",
    "per_gpu_eval_batch_size": "write per_device_eval_batch_size",
    "per_gpu_train_batch_size": _BATCH,
    "predict_with_generate": 'leave it out: deploy the result with action="infer" and ask it',
    "prediction_loss_only": _METRICS,
    "project": "write name: the job's",
    "push_to_hub": _HUB,
    "push_to_hub_model_id": _HUB,
    "push_to_hub_organization": _HUB,
    "push_to_hub_token": _HUB,
    "ray_scope": "leave it out: there is no search over parameters",
    "remove_unused_columns": "leave it out: only the columns of the row's format are read",
    "restore_callback_states_from_checkpoint": "leave it out: there are no callbacks",
    "run_name": "write name: the job's",
    "save_on_each_node": "leave it out: one job folder that all nodes see holds everything",
    "save_only_model": "leave it out: a checkpoint is there to go on from; the result holds weights only",
    "save_safetensors": "leave it out: the result is always safetensors",
    "sharded_ddp": _ZERO,
    "skip_memory_metrics": "leave it out: memory is recorded with every step, at no cost",
    "sortish_sampler": "write group_by_length",
    "split_batches": _DATA,
    "tf32": "write bf16, or leave it out: fp32 stays exact",
    "torch_compile_backend": _COMPILE,
    "torch_compile_mode": _COMPILE,
    "torch_empty_cache_steps": "leave it out: memory is freed when the job ends",
    "torchdynamo": _COMPILE,
    "tpu_metrics_debug": "leave it out: TPUs are not supported",
    "tpu_num_cores": "leave it out: TPUs are not supported",
    "trackio_bucket_id": "write report_to: tensorboard, wandb, mlflow or none",
    "trackio_space_id": "write report_to: tensorboard, wandb, mlflow or none",
    "trackio_static_space_id": "write report_to: tensorboard, wandb, mlflow or none",
    "train_sampling_strategy": "write group_by_length",
    "use_cache": "leave it out: training never uses the cache of generation",
    "use_cpu": _DEVICE,
    "use_ipex": _DEVICE,
    "use_legacy_prediction_loop": _METRICS,
    "use_liger_kernel": "leave it out: Liger's kernels are not used",
    "use_mps_device": _DEVICE,
    "xpu_backend": _DDP,
}
"""What to do instead, by name: of transformers 4 and 5, `Seq2SeqTrainingArguments` included, and short names."""

REFUSED_FOR_SFT: Mapping[str, str] = {
    **REFUSED,
    "epoches": "write num_train_epochs",
    "max_length": "write max_seq_length",
    "steps_per_epoch": "write max_steps (of the whole run)",
    "tokenizer_path": "leave it out: fine-tuning needs the model's own tokenizer",
    "from_scratch": "write sfft/… to pretrain",
    "train_from_scratch": "write sfft/… to pretrain",
    "lora_target": "write target_modules",
    "lora_target_modules": "write target_modules",
    **dict.fromkeys(("cutoff_len", "sequence_len", "max_len"), "write max_seq_length"),
    **dict.fromkeys(
        ("train_on_inputs", "completion_only_loss", "assistant_only_loss", "train_on_prompt", "mask_history"),
        "leave it out: the loss is always on the assistant's tokens only",
    ),
    **dict.fromkeys(
        ("use_rslora", "init_lora_weights", "loraplus_lr_ratio", "use_pissa"),
        "leave it out: finetuning_type is lora, dora, qlora or full",
    ),
    **dict.fromkeys(
        ("dataset_num_proc", "preprocessing_num_workers"), "leave it out: many rows are tokenised on all cores"
    ),
    "use_dora": 'write finetuning_type="dora"',
    "use_lora": 'write finetuning_type="lora"',
    **dict.fromkeys(
        ("use_qlora", "load_in_4bit", "quantization", "quatization", "quantization_bit", "quant_type"), _QLORA
    ),
}

REFUSED_FOR_DPO: Mapping[str, str] = {
    **REFUSED_FOR_SFT,
    "packing": "leave it out: the two answers of a pair are in one batch, a row each",
    **dict.fromkeys(("resize_vocab", "resize_token_embeddings"), _FIT_FIRST),
    "disable_dropout": "write lora_dropout, which is 0 unless a cell says otherwise",
    "label_smoothing": "leave it out: every row's preference is taken as it is written",
    "max_completion_length": "write max_seq_length, of prompt and answer together",
    "max_prompt_length": "write max_seq_length, of prompt and answer together",
    "precompute_ref_log_probs": "leave it out: the reference is computed in each step",
    "ref_model": "leave it out: the reference is the base, without its adapter",
    "sync_ref_model": "leave it out: the reference stays the base",
}

REFUSED_FOR_SFFT: Mapping[str, str] = {
    **REFUSED,
    "group_by_length": "leave it out: all rows have max_length tokens",
    "max_seq_length": "write max_length",
    **dict.fromkeys(
        ("finetuning_type", "lora_rank", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save"), _ADAPTER
    ),
}
