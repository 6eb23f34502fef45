"""The funnel: number of pages read, and dropped by each rule."""

from collections.abc import Iterator

from lm.serving.fields import Fields
from lm.serving.inspections import Inspection
from viewer.window.corpus.run_data import data_of, or_missing, told_funnel
from viewer.window.window_run import WindowRun


def inspections(run: WindowRun) -> list[Inspection]:
    def funnel(fields: Fields) -> dict[str, object]:
        return told_funnel(data_of(run).funnel(), run.experiment.documents)

    about = "pages read, kept and dropped, by stage and reason, with the thresholds"
    return or_missing([Inspection("funnel", (), funnel, about)])


def to_record(run: WindowRun) -> Iterator[tuple[str, dict]]:
    yield "funnel", {}
