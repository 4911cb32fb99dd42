"""An API and nothing beside it: no admin, no sessions, no middleware."""

import os
import secrets
from urllib.parse import unquote, urlsplit

_database = urlsplit(os.environ["DATABASE_URL"])

DEBUG = False
SECRET_KEY = secrets.token_hex(32)
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "retail.urls"
WSGI_APPLICATION = "retail.wsgi.application"
INSTALLED_APPS = ["rest_framework", "retail"]
MIDDLEWARE = []
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False
# Lists of any size that the benchmark sends.
DATA_UPLOAD_MAX_MEMORY_SIZE = None

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": _database.hostname,
        "PORT": _database.port or 5432,
        "USER": unquote(_database.username or ""),
        "PASSWORD": unquote(_database.password or ""),
        "NAME": unquote(_database.path.lstrip("/")),
        # A connection a worker process, kept for good.
        "CONN_MAX_AGE": None,
    }
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "UNAUTHENTICATED_USER": None,
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "EXCEPTION_HANDLER": "retail.views.problem",
}

# Where changes are published; none where events are left out.
AMQP_URL = os.environ.get("AMQP_URL")
