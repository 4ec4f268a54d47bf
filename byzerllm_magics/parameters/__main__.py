"""``python -m byzerllm_magics.parameters``: print the page that `docs/parameters.md` holds."""

from .help import reference_page

print(reference_page(), end="")
