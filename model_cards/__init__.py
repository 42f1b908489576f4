"""The card template, found by `importlib.resources.files("model_cards")`: only as a package in an editable install."""
