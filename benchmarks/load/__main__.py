"""Does a worker keep its promises under load: nothing lost, doubled, out of order or late, and the books balanced?

    python -m benchmarks.load --minutes 10                the load alone
    python -m benchmarks.load --minutes 10 --faults       as long in all, one fault after another
    python -m benchmarks.load --quick [--faults]          in half a minute
    … --store supabase                                    on Postgres, through the server of the tests

Real processes of the worker under RunPod's own loop, for the fake platform of the tests; eSpeak speaks, held to
`--pace` seconds of an utterance a second, so that jobs last as long as a GPU would need. The platform, the clients
and, for `--store supabase`, the database run on the same machine and take their share of it.
"""

import sys

from benchmarks.load.run import main

if __name__ == "__main__":
    main(sys.argv[1:])
