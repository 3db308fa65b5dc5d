"""Definitions of the networks whose weights come without code; state names are those of the published weights."""
