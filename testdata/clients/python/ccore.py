"""gRPC's C-core, by its Python binding, with messages that are bytes to it, so that it needs no generated code.

It is told what to do as JSON in its argument, and says as JSON what came of it.
"""

import concurrent.futures
import json
import sys
import time

import grpc

HELLO = b"\x0a\x05hello"  # An EchoRequest with that message; the answer begins in the same way.
PATH = "/muxserve.demo.v1.Echo/Unary"
TIMEOUT = 60  # seconds
AT_ONCE = 20  # Connections at the same time where there is no pause.
MAX_ERRORS = 5


def channel(task):
    # Else channels to one address share a connection.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    if not task["ca"]:
        return grpc.insecure_channel(task["address"], options)
    with open(task["ca"], "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    return grpc.secure_channel(task["address"], credentials, options)


def connection(task):
    """Makes the calls of one connection; returns how many were answered, and the error that ended them."""
    answered = 0
    try:
        with channel(task) as opened:
            if task["pause_ms"]:
                grpc.channel_ready_future(opened).result(TIMEOUT)
                time.sleep(task["pause_ms"] / 1000)
            # The calls take turns; each has a path and what must stand in the answer: the transport, or another server's word.
            calls = task.get("calls") or [(PATH, task["transport"])]
            turns = [calls[i % len(calls)] for i in range(task["each"])]
            request = bytes.fromhex(task.get("request", "")) or HELLO  # It begins with HELLO.
            futures = [opened.unary_unary(path).future(request, timeout=TIMEOUT) for path, _ in turns]
            for (path, by), future in zip(turns, futures):
                answer = future.result()
                if not answer.startswith(HELLO) or by.encode() not in answer:
                    raise ValueError(f"{path} was answered {answer!r}, not by {by}")
                answered += 1
    except Exception as err:  # pylint: disable=broad-except; whatever it is, it goes into the table.
        return answered, str(err)
    return answered, None


def main():
    task = json.loads(sys.argv[1])
    workers = task["connections"] if task["pause_ms"] else AT_ONCE
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(connection, [task] * task["connections"]))
    errors = [err for _, err in results if err]
    print(json.dumps({"answered": sum(n for n, _ in results), "errors": errors[:MAX_ERRORS]}))


main()
