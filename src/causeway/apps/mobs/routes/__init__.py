"""M-OBS over HTTP, one file a resource."""
