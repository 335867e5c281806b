"""Evaluations of a run as a table shows them: those of the same images are one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nuat.checkpoints.run import Run
from nuat.errors import InputError
from nuat.evaluation import EvaluationResult
from nuat.report.naming import ball_text


@dataclass(frozen=True)
class Settings:
    """What an attack's figure depends on, besides the network and the images."""

    attack: Any
    seed: int
    search: str

    @staticmethod
    def of(scores: EvaluationResult, name: str) -> Settings:
        """Those of an attack, or of a snapshot of it, `pgd-20 at 7`."""
        attack = scores.attacks.get(name, scores.attacks.get(name.rpartition(" at ")[0]))
        return Settings(attack, scores.seed, scores.search_precision)

    def apart_from(self, other: Settings) -> str:
        """`seed 1, bf16`: what tells them apart; nothing if the attacks themselves differ."""
        if self.attack != other.attack:
            return ""
        seed = f"seed {self.seed}" if self.seed != other.seed else ""
        search = f"{self.search}" if self.search != other.search else ""
        return ", ".join(filter(None, (seed, search)))


@dataclass(frozen=True)
class Evaluation:
    """Which images stand: in one evaluation, or in several of the same images.

    Attributes:
        names: the evaluations'.
        data, split: which images, by name; None where nobody said.
        ball: the threat model.
        network: a fingerprint of the weights.
        images: place in the split and true class of each image.
        right: the places of images that are classified rightly.
        standing: for each attack, the places of images that are and withstood it.
        settings: what each attack's figure depends on.
    """

    names: tuple[str, ...]
    data: str | None
    split: str | None
    ball: str
    network: str
    images: frozenset[tuple[int, int]]
    right: frozenset[int]
    standing: Mapping[str, frozenset[int]]
    settings: Mapping[str, Settings]

    @staticmethod
    def of(name: str, scores: EvaluationResult) -> Evaluation:
        """One evaluation."""

        def places(verdicts: Iterable[bool]) -> frozenset[int]:
            return frozenset(i for i, yes in zip(scores.indices, verdicts, strict=True) if yes)

        pairs = zip(scores.labels, scores.predicted, strict=True)
        return Evaluation(
            names=(name,),
            data=scores.metadata.get("data"),
            split=scores.metadata.get("split"),
            ball=scores.ball,
            network=scores.model_fingerprint,
            images=frozenset(zip(scores.indices, scores.labels, strict=True)),
            right=places(label == guess for label, guess in pairs),
            standing={attack: places(stood) for attack, stood in scores.robust.items()},
            settings={attack: Settings.of(scores, attack) for attack in scores.robust},
        )

    @property
    def subject(self) -> tuple[object, ...]:
        """What must be the same for evaluations to be shown as one."""
        return self.data, self.split, self.ball, self.network, self.images

    def joined(self, other: Evaluation) -> Evaluation:
        """Both as one: an image stands if it stands in both.

        An attack of the same name and other settings, such as another seed, keeps a figure of its
        own, with what tells it apart beside it.
        """
        standing, settings = dict(self.standing), dict(self.settings)
        for attack, stood in other.standing.items():
            found = other.settings[attack]
            if found != (there := settings.get(attack, found)):
                attack = f"{attack} ({found.apart_from(there) or ', '.join(other.names)})"
            standing[attack] = standing.get(attack, stood) & stood
            settings[attack] = found
        return replace(
            self,
            names=self.names + other.names,
            right=self.right & other.right,
            standing=standing,
            settings=settings,
        )

    def share(self, places: frozenset[int]) -> float:
        """The share of all images that these are."""
        return len(places) / len(self.images)

    @property
    def worst(self) -> float | None:
        """Share of images that stand under every attack; None without an attack."""
        if not self.standing:
            return None
        return self.share(self.right.intersection(*self.standing.values()))


def merged(found: Iterable[Evaluation]) -> list[Evaluation]:
    """Evaluations of the same images as one, in the order in which they first come."""
    groups: dict[object, Evaluation] = {}
    for each in found:
        there = groups.get(each.subject)
        groups[each.subject] = there.joined(each) if there else each
    return list(groups.values())


def of_run(run: Run, network: str | None = None) -> tuple[Evaluation | None, Sequence[str]]:
    """The evaluation to show beside other runs; and in words, what else is there.

    It is of the run's own data and, if their fingerprint is given, of its weights as they are.
    The test split comes first, then the recipe's ball, the most images, the last by name.
    """
    own, ball = run.config["data"]["name"], ball_text(run.config["recipe"]["ball"])
    every = merged(Evaluation.of(name, scores) for name, scores in _scores(run, own))
    fit = [each for each in every if each.data == own and network in (None, each.network)]
    shown = max(
        fit,
        key=lambda each: (
            each.split == "test",
            each.ball == ball,
            len(each.images),
            each.names[-1],
        ),
        default=None,
    )
    return shown, [_words(each, own, network) for each in every if each is not shown]


def _scores(run: Run, data: str) -> Iterable[tuple[str, EvaluationResult]]:
    """By name; where scores do not say their split, their name begins with it."""
    for name, written in sorted(run.scores.items()):
        try:
            scores = EvaluationResult.from_dict(written)
        except InputError as error:
            raise InputError(f"{run.path}/scores/{name}.json: {error}") from None
        metadata = {"data": data, "split": name.partition("-")[0]} | scores.metadata
        yield name, replace(scores, metadata=metadata)


def _words(each: Evaluation, data: str, network: str | None) -> str:
    """`test-fgsm (60 images of test, Linf(0.1), worst 41.2 %)`."""
    parts = [f"{len(each.images):,} images of {each.split}", each.ball]
    parts += [f"of other data, {each.data}"] if each.data != data else []
    parts += ["of other weights"] if network not in (None, each.network) else []
    parts += [f"worst {100 * each.worst:.1f} %"] if each.worst is not None else []
    return f"{', '.join(each.names)} ({', '.join(parts)})"
