"""A job's report: what it counted (figures), as plots (plots), on one page (page)."""
