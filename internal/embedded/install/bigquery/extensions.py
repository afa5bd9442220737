# Installs the DuckDB extensions that came as packages into $HOME/.duckdb, and loads each once.
import importlib
import pathlib

import duckdb

connection = duckdb.connect()
for name in ("icu", "spatial", "ducklake", "avro", "httpfs"):
    module = importlib.import_module("duckdb_extension_" + name)
    path = next(pathlib.Path(module.__file__).parent.rglob(name + ".duckdb_extension"))
    connection.execute(f"INSTALL '{path}'")
    connection.execute("LOAD " + name)
