"""The kernel's schema, step by step; `env.py` here serves every app's migrations too."""
