"""The plot of a search: every kind of trial and setting, and the same bytes for the same trials."""

from tokenloom.reporting.search_plot import PlottedTrial, plot_search

TRIALS = [
    PlottedTrial(1, 2.5, "finished", {"train.learning-rate": 1e-3, "model.n-layer": 2, "train.optimizer": "adamw"}),
    PlottedTrial(2, 2.2, "finished", {"train.learning-rate": 1e-2, "model.n-layer": 3, "train.optimizer": "muon"}),
    PlottedTrial(3, 2.9, "pruned", {"train.learning-rate": 1e-4, "model.n-layer": 4, "train.optimizer": "muon"}),
    PlottedTrial(4, None, "failed", {"train.learning-rate": 1e-4, "model.n-layer": 4, "train.optimizer": None}),
]
LOGARITHMIC = {"train.learning-rate": True, "model.n-layer": False, "train.optimizer": False}


def test_the_plot_names_each_setting_with_its_importance(tmp_path):
    plots = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for path in plots:
        plot_search(TRIALS, LOGARITHMIC, {"train.learning_rate": 0.75}, path)
    text = plots[0].read_text()
    assert text == plots[1].read_text()
    for words in ("train.learning-rate", "importance 75%", "train.optimizer", "adamw", "best so far", "0.01"):
        assert f"<!-- {words} -->" in text


def test_a_search_without_trials_has_a_plot(tmp_path):
    plot_search(TRIALS[3:], {"train.optimizer": False}, {}, tmp_path / "c.svg")
    assert "no trial evaluated yet" in (tmp_path / "c.svg").read_text()
