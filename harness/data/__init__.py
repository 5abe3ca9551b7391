"""Recordings: `corpora` (cards), `fetch` (getting them), `bank` (decoded audio), `tracks` (noises made from it), `noises`
and `scenes` (mixtures)."""
