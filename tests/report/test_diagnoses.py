"""The page shows the stored diagnoses, and says which of them it cannot show."""

from nuat.diagnosis import Diagnosis
from nuat.diagnosis.check import Check
from nuat.diagnosis.result import FILE_NAME
from nuat.nn.fingerprint import fingerprint
from tests.report.test_report import network, page, runs, trained  # noqa: F401

FAILED = Check("steps", "fail", "PGD-20 <b>50.0 %</b>, PGD-500 10.0 %", "at most 5 %", "more steps")
PASSED = Check("square", "pass", "0 of 100", "none", "unused advice")


def diagnosis(model_fingerprint):
    return Diagnosis(
        checks=[FAILED, PASSED],
        clean_accuracy=0.9,
        robust_accuracy=0.5,
        classes=10,
        indices=[0, 1],
        ball="Linf(0.2)",
        seed=0,
        seconds=1.0,
        model_fingerprint=model_fingerprint,
        versions={},
    )


def test_a_stored_diagnosis_is_shown_as_text(runs, tmp_path):  # noqa: F811
    model = network(runs[0])
    diagnosis(fingerprint(model)).write(runs[0].path / FILE_NAME)
    shown = page(runs, tmp_path / "page.html", models={runs[0].path: model})
    for text in ("Is it real?", "do not believe", "steps failed", "at most 5 %", "more steps"):
        assert text in shown.text
    assert "PGD-20 <b>50.0 %</b>" in shown.text and "unused advice" not in shown.text
    assert "Is it real?" not in page(runs[1:], tmp_path / "without.html").text


def test_what_cannot_be_shown_is_said(runs, tmp_path):  # noqa: F811
    diagnosis("other").write(runs[0].path / FILE_NAME)
    (runs[1].path / FILE_NAME).write_text("{}")
    shown = page(runs, tmp_path / "page.html", models={runs[0].path: network(runs[0])})
    assert "the diagnosis of normal is of other weights: diagnose again" in shown.text
    assert "the diagnosis of nuat cannot be read" in shown.text
    assert "Is it real?" not in shown.text
