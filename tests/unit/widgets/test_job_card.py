import pytest

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.widgets.job_card import JobCard, Pace


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def card(clock):
    return JobCard(clock)


def press_stop(card):
    card._handle_custom_msg({"type": "stop"}, [])


def test_it_shows_the_job_and_its_newest_values(card, clock, make_state):
    clock.now = 1020.0
    card.update(make_state(10, message="all well"))
    shown = card.card
    assert (shown["name"], shown["state"], shown["message"]) == ("sft-demo", "running", "all well")
    assert (shown["loss"], shown["step"], shown["total_steps"]) == (1.3, 10, 100)
    assert (shown["elapsed"], shown["remaining"]) == (20.0, None)  # one look shows no pace


def test_the_time_left_follows_the_present_pace_not_the_slow_start(card, clock, make_state):
    for step in range(1, 11):
        clock.now = 1500.0 + step
        card.update(make_state(step))
    assert card.card["remaining"] == 90.0


def test_a_job_that_ended_has_no_time_left_and_its_clock_stands(card, clock, make_state):
    clock.now = 9999.0
    card.update(make_state(10, state="finished"))
    assert (card.card["elapsed"], card.card["remaining"]) == (10.0, None)


def test_nothing_is_sent_for_nothing_but_the_clock_every_ten_seconds(card, clock, make_state):
    card.update(make_state(10))
    sent = []
    card.observe(sent.append, "card")
    clock.now += 9
    card.update(make_state(10))
    assert sent == []
    clock.now += 1
    card.update(make_state(10))
    assert len(sent) == 1


def test_the_button_calls_back_and_is_there_only_while_there_is_something_to_stop(card, make_state):
    stops = []
    card.update(make_state(10))
    assert not card.card["stoppable"]
    card.on_stop(lambda: stops.append(1))
    card.update(make_state(11))
    assert card.card["stoppable"]
    press_stop(card)
    assert stops == [1]
    card.update(make_state(12, state="stopped"))
    assert not card.card["stoppable"]


def test_other_messages_do_not_stop_a_job(card):
    stops = []
    card.on_stop(lambda: stops.append(1))
    card._handle_custom_msg({"type": "ping"}, [])
    assert stops == []


def test_a_stop_that_fails_says_so_on_the_card(card):
    def stop():
        raise ByzerError("the job's coordinator is gone", do="attach again")

    card.on_stop(stop)
    press_stop(card)
    assert card.notice == "ByzerError: the job's coordinator is gone"


def test_a_restart_does_not_make_the_pace_negative():
    pace = Pace()
    for now, step in [(0.0, 1), (2.0, 2), (4.0, 3), (60.0, 1), (61.0, 2), (64.0, 5)]:
        pace.add(now, step)
    assert pace.seconds_a_step() == 1.0


def test_the_start_up_does_not_count_as_a_slow_step():
    pace = Pace()
    for now, step in [(0.0, 0), (60.0, 1), (61.0, 2)]:
        pace.add(now, step)
    assert pace.seconds_a_step() is None, "it was watched for a second"
    pace.add(65.0, 6)
    assert pace.seconds_a_step() == 1.0


def test_the_newest_answers_to_the_users_prompts_are_on_it(card, make_state):
    samples = [{"attempt": 1, "step": 20, "prompt": "Hello", "answer": "Hi."}]
    card.update(make_state(samples=samples))
    assert card.card["samples"] == samples
