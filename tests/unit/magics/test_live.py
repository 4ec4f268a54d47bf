"""The thread that keeps views of running jobs up to date."""

from byzerllm_magics.live import Watcher


class View:
    """A view of a job that goes on, or cannot be looked at."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.refreshed, self.given_up = error, 0, ""

    def refresh(self) -> bool:
        self.refreshed += 1
        if self.error:
            raise self.error
        return True

    def give_up(self, error: Exception) -> None:
        self.given_up = str(error)


def test_a_view_that_cannot_be_refreshed_ends_and_the_others_go_on() -> None:
    watcher = Watcher()
    broken, sound = View(FileNotFoundError("the job's folder is gone")), View()
    watcher._views = [broken, sound]
    watcher.settle()
    watcher.settle()
    assert broken.given_up == "the job's folder is gone"
    assert (broken.refreshed, sound.refreshed) == (1, 2)
