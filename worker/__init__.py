"""From the queue to SQL: loader, model, engine, tasks. The only package that imports torch or transformers."""
