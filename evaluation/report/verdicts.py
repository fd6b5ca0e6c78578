"""What comes first in a report: which audits failed, and whether each model beats what it has to beat, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .explanations import ROLE_WORDS, ROLES, TRANSFER, VERDICT_WORDS, WITH_PREDICTED, WITH_TRANSFER

EXPOSED = "†"
"""Behind the label of a row whose model may have seen the molecules of the queries."""

HOW = {
    "": "",
    TRANSFER: " (by analogue transfer)",
    WITH_TRANSFER: " (with analogue transfer)",
    WITH_PREDICTED: " (with predicted spectra)",
}
"""What is said of the question that a row of a model has answered, by what stands behind the model's label."""

VOID = "‡"
"""Behind the label of a row whose figures do not count, since an audit failed."""


def learned_labels(tree: Mapping[str, Any]) -> list[str]:
    """Return the labels of the models under test, in the order of their first appearance."""
    return list(
        dict.fromkeys(model_of(row) for _, task in measured(tree) for row in task["rows"] if row["kind"] == "learned")
    )


def model_of(row: Mapping[str, Any]) -> str:
    """Return the label of the model behind a row, which may be its analogue transfer, or several in one."""
    label = str(row["label"])
    return label.removesuffix(next((end for end in HOW if end and label.endswith(end)), ""))


def measured(tree: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield name and content of every question that has rows."""
    yield from ((name, task) for name, task in tree["tasks"].items() if task["rows"])


def headline(task: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the differences of a row in the question's main metric, by role, in the order of `ROLES`."""
    by_role = {found["role"]: found for found in row["differences"] if found["metric"] == task["main"]}
    return {role: by_role[role] for role in ROLES if role in by_role}


def verdict_sentences(tree: Mapping[str, Any]) -> list[str]:
    """Return for each model one sentence against each opponent: where it beats, loses to, or cannot be told from it.

    What a model answers by analogue transfer counts as its own answer, and is named so. Questions in which an audit has
    made the row void are left out here; see `void_sentences`.
    """
    labels = learned_labels(tree)
    if not labels:
        return ["No model was evaluated: these are the figures of the baselines alone."]
    sentences = []
    for label in labels:
        by_role: dict[str, dict[str, list[str]]] = {role: {} for role in ROLES}
        num_questions = dict.fromkeys(ROLES, 0)
        for name, task in measured(tree):
            for row in task["rows"]:
                if row["kind"] != "learned" or model_of(row) != label or row["void"]:
                    continue
                how = HOW[str(row["label"]).removeprefix(label)]
                for role, found in headline(task, row).items():
                    by_role[role].setdefault(found["verdict"], []).append(_plain(name) + how)
                    num_questions[role] += 1
        asked = max(num_questions.values())  # of a role that a few rows have, these are named
        said = [_sentence(label, role, of, asked) for role, of in by_role.items() if of]
        sentences += said or [f"'{label}': nothing could be judged."]
    return sentences


def void_sentences(tree: Mapping[str, Any]) -> list[str]:
    """Return one sentence on each row, of any kind, that an audit has made void."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for name, task in measured(tree):
        for row in task["rows"]:
            if row["void"]:
                by_reason.setdefault((row["label"], row["void"]), []).append(_plain(name))
    return [
        f"The figures of '{label}' in {listed(names)} do not count: {reason.rstrip('.')}."
        for (label, reason), names in by_reason.items()
    ]


def exposure_sentences(tree: Mapping[str, Any]) -> list[str]:
    """Return a warning for each row that may have been trained on the molecules of the queries."""
    exposed = {model_of(row): row["exposure"] for _, task in measured(tree) for row in task["rows"] if row["exposure"]}
    return [
        f"'{label}' may have seen the molecules of the queries: {reason}. Its figures may measure memory."
        for label, reason in exposed.items()
    ]


def failed_audits(tree: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the findings of audits that failed, in their order."""
    return [finding for finding in tree["audits"] if finding["passed"] is False]


def audit_sentence(tree: Mapping[str, Any]) -> str:
    """Return how many audits passed, failed, and could not be run."""
    passed = [finding["passed"] for finding in tree["audits"]]
    if not passed:
        return "No audit was run: nothing is known of leaks."
    parts = [f"{passed.count(True)} of {len(passed)} audits passed"]
    parts += [f"{passed.count(False)} failed"] if False in passed else []
    parts += [f"{passed.count(None)} could not be run"] if None in passed else []
    return ", ".join(parts) + "."


def predicted_sentence(tree: Mapping[str, Any]) -> str | None:
    """Return how many of the spectra no instrument has measured, or None where all are measured."""
    predicted, spectra = tree["inputs"].get("predicted spectra", 0), tree["inputs"].get("spectra", 0)
    return f"{predicted:,} of {spectra:,} spectra were predicted by a program, not measured." if predicted else None


def warnings(tree: Mapping[str, Any]) -> list[str]:
    """Return everything that stands beside the verdict: void and exposed rows, predicted spectra, shared molecules."""
    predicted = predicted_sentence(tree)
    found = [*void_sentences(tree), *exposure_sentences(tree), *([predicted] if predicted else [])]
    split = tree["inputs"].get("split", {})
    if split.get("shares"):
        found.append(
            f"The folds of this split (kind '{split['kind']}') share molecules: a model has been trained on spectra of "
            "the molecules that it is asked about. The figures are about known molecules; no analogue search is asked."
        )
    if unasked := tree["inputs"].get("tasks without a query"):
        found.append(f"Not asked, since the data hold no query for it: {listed([_plain(name) for name in unasked])}.")
    return found


def listed(words: Sequence[str]) -> str:
    """Return words as 'a', 'a and b' or 'a, b and c'."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _sentence(label: str, role: str, by_verdict: Mapping[str, list[str]], num_questions: int) -> str:
    opponent = ROLE_WORDS[role]
    parts = [
        f"{words} {opponent} in {_questions(by_verdict[verdict], num_questions)}"
        for verdict, words in VERDICT_WORDS.items()
        if verdict in by_verdict
    ]
    return f"'{label}' {'; '.join(parts)}."


def _questions(names: list[str], num_questions: int) -> str:
    return f"all {num_questions} questions" if len(names) == num_questions > 1 else listed(names)


def _plain(name: str) -> str:
    """Return the name of a question without a comma, which a list of names could not hold."""
    return name.replace(",", " with")
