#!/usr/bin/env python3
"""Django's command line, for the migrations."""

import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "retail.settings")
execute_from_command_line(sys.argv)
