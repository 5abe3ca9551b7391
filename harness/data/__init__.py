"""Recordings: `corpora` (cards), `fetch` (getting them), `bank` (decoded audio), `noises` and `scenes` (mixtures)."""
