"""Whole commands, as other tests run them."""

from tests.pipeline.conftest import kosmograph as kosmograph
