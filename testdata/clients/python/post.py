"""httpx, which sends a whole body before it looks at the answer, posts 10 MB to a handler that does not read them.

It is told what to do as JSON in its argument, and says as JSON what came of it.
"""

import json
import sys

import httpx

BODY = bytes(10_000_000)
TIMEOUT = 30  # seconds without a byte
MAX_ERRORS = 5


def connection(task):
    """Makes the posts of one connection; returns how many were answered, and the error that ended them."""
    answered = 0
    url = task["url"].removesuffix("/echo") + "/livez"
    try:
        with httpx.Client(http1=False, http2=True, verify=task["ca"] or True, trust_env=False, timeout=TIMEOUT) as client:
            for _ in range(task["each"]):
                response = client.post(url, content=BODY)
                if response.status_code != 405 or response.http_version != "HTTP/2":
                    raise ValueError(f"{response.status_code} over {response.http_version}")
                answered += 1
    except Exception as err:  # pylint: disable=broad-except; whatever it is, it goes into the table.
        return answered, repr(err)
    return answered, None


def main():
    task = json.loads(sys.argv[1])
    results = [connection(task) for _ in range(task["connections"])]
    errors = [err for _, err in results if err]
    print(json.dumps({"answered": sum(n for n, _ in results), "errors": errors[:MAX_ERRORS]}))


main()
