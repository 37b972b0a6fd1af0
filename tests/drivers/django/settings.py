"""Nothing of this knows of presplit."""

import os
from urllib.parse import urlsplit

url = urlsplit(os.environ["DATABASE_URL"])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.path.lstrip("/"),
        "USER": url.username,
        "PASSWORD": url.password or "",
        "HOST": url.hostname,
        "PORT": url.port,
    }
}
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "demo", "broken_second", "broken_shard"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
