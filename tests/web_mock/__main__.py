from __future__ import annotations

import argparse

import uvicorn

from web_mock.app import create_app
from web_mock.town import Town

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, default=8001)
parser.add_argument("--fresh", action="store_true")
parser.add_argument("--base", action="store_true")
options = parser.parse_args()
town = Town(fresh=options.fresh, base=options.base)
uvicorn.run(create_app(town), host="127.0.0.1", port=options.port, log_level="warning")
