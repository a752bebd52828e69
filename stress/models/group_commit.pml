/* Group commit: the turn passes on after publication, and one sync serves every commit before it (dbzero/storage/sharing.py, _sync_for_all).
 *
 * Three writers commit one state each, in any order. Each may begin a new log file first, which syncs the one before. Having given the turn back, a writer syncs the log file that it has
 * open - perhaps not the newest any more - and says which states are durable by that.
 *
 * Proved: no state is called durable before the frames of it and of all states before it are on disk.
 *
 * Mutations that must fail: NO_NUMBER (whatever is published is claimed), NUMBER_FIRST (the number is read before what is published), SYNC_FIRST (what is published is
 * read after the sync), LATE_NUMBER (a new file is entered in the slot after its first commit is published), NO_SYNC_OLD (a new file is begun without a sync of the one before). */

#define N 3

bool busy = false;              /* the turn */
byte published = 0, durable = 0;
byte log_number = 0;            /* as the slot says */
byte number = 0;                /* the log file that the holder goes on in */
byte file[N + 2];               /* of each state's frame, + 1; 0: not written */
bool on_disk[N + 2];

inline sync(f)
{
    /* what was written to the file when the call began is on disk when it returns */
    atomic {
        i = 1;
        do
        :: i <= N -> if :: file[i] == f + 1 -> on_disk[i] = true :: else -> skip fi; i++
        :: else -> break
        od
    }
}

proctype Writer()
{
    byte mine, open, claim, newest, seen, i;
    bool rotated = false;
    atomic { !busy -> busy = true };
    open = number;
    if
    :: true ->
#ifndef NO_SYNC_OLD
        sync(open);
        atomic { if :: published > durable -> durable = published :: else -> skip fi };
#endif
        number = number + 1;
        open = number;
        rotated = true;
#ifndef LATE_NUMBER
        log_number = number
#endif
    :: true
    fi;
    mine = published + 1;
    file[mine] = open + 1;
    published = mine;
#ifdef LATE_NUMBER
    if :: rotated -> log_number = number :: else -> skip fi;
#endif
    busy = false;

#ifdef NUMBER_FIRST
    seen = log_number;
    newest = published;
#else
#ifdef SYNC_FIRST
    sync(open);
#endif
    newest = published;
    seen = log_number;
#endif
#ifndef SYNC_FIRST
    sync(open);
#endif
    if
    :: seen == open -> claim = newest
#ifdef NO_NUMBER
    :: else -> claim = newest
#else
    :: else -> claim = mine
#endif
    fi;
    atomic {
        if :: claim > durable -> durable = claim :: else -> skip fi;
        i = 1;
        do
        :: i <= durable -> assert(on_disk[i]); i++
        :: else -> break
        od
    };
    assert(durable >= mine)
}

init {
    atomic { run Writer(); run Writer(); run Writer() }
}
