"""The contract is what two rooms agree on, so its own sentences are checked here."""

from serving import contract


def test_contract_every_output_has_the_batch_first() -> None:
    for outputs in contract.SIGNATURES.values():
        assert all(spec.shape[0] is None for spec in outputs)


def test_contract_explain_answers_everything_that_serving_does() -> None:
    assert set(contract.SERVING_OUTPUTS) < set(contract.EXPLAIN_OUTPUTS)


def test_contract_required_outputs_are_among_those_served() -> None:
    assert set(contract.REQUIRED_OUTPUTS) <= {spec.name for spec in contract.SERVING_OUTPUTS}
