"""What all sides agree on: settings, errors, messages, grounding types, tables, the ledger, views."""
