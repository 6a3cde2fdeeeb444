"""GLISK's HTTP, one file a resource. Routes read the store and file work; they call nobody."""
