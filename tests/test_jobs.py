"""The table of actions, whose areas are written apart from each other."""

from tts_core.jobs import ACTIONS, AREAS


def test_no_two_areas_have_an_action_of_one_name() -> None:
    assert len(ACTIONS) == sum(len(area) for area in AREAS)


def test_an_action_has_the_name_its_request_takes() -> None:
    for action, kind in ACTIONS.items():
        assert kind.model_json_schema()["properties"]["action"]["const"] == action
