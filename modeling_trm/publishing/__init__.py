"""Publish a checkpoint, a data set or the metric on the Hub: choose and check the files, compare, one commit."""
