"""From MLflow runs to a ranking: `runs` reads, `ranking` estimates, `plots` draws, `page` writes."""
