"""Evaluations by voting over augmented views: views, votes on disk and in memory, statistics, report, submission."""
