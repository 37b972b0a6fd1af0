"""manage.py as any Django project has it: `migrate` runs the migrations of the app `demo` against DATABASE_URL."""

import os
import sys

from django.core.management import execute_from_command_line

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
execute_from_command_line(sys.argv)
