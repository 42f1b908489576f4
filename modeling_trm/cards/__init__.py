"""Model cards, the images of published checkpoints, and the table of results that the cards' figures make."""
