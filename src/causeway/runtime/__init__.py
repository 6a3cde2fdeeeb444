"""Puts apps together: the web application, the workers, the migrations."""
