"""Validate a file and its points, and collect their mistakes."""

from pydantic import ValidationError

from spar_bench import registry
from spar_bench.spec.checks import Checker
from spar_bench.spec.document import Document, Problem
from spar_bench.spec.problems import Locator, explain
from spar_bench.spec.schema import Settings, Spec
from spar_bench.spec.sweep import Draft


class Resolver:
    """Validates against the schema, the available plug-ins, and the sizes of backbones."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._plugins = {family: registry.names(family) for family in registry.ATTRIBUTES}
        self._checker = Checker()

    def spec(self) -> tuple[Spec | None, list[Problem]]:
        """Return the whole file as a model, or what is wrong in it."""
        try:
            return Spec.model_validate(self.document.data, context=self._plugins), []
        except ValidationError as error:
            return None, list(explain(error, Locator(self.document, {})))

    def resolve(self, draft: Draft) -> tuple[Settings | None, list[Problem]]:
        """Return a point's settings, or what is wrong with them."""
        locator = Locator(self.document, draft.origins)
        try:
            settings = Settings.model_validate(draft.raw, context=self._plugins)
        except ValidationError as error:
            return None, list(explain(error, locator))
        problems = [
            Problem(
                locator.at_odds([tuple(key.split(".")) for key in odds.keys]),
                odds.keys[0],
                odds.text,
            )
            for odds in self._checker.check(settings, draft.axes)
        ]
        return (None if problems else settings), problems

    def single_values(self, draft: Draft) -> list[Problem]:
        """Return the mistakes in a point's single values."""
        try:
            Settings.model_validate(draft.raw, context=self._plugins)
        except ValidationError as error:
            return list(explain(error, Locator(self.document, draft.origins), alone=True))
        return []
