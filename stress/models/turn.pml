/* Turns of shared writers: the line of waiters (csrc/turns.c, csrc/segment.h at dbz_prefix) and what a holder that ends badly leaves (dbzero/storage/sharing.py).
 *
 * Three processes want a turn each. A waiter may give up at any moment. A holder may die at any step of its turn (one does); then whoever wants the turn takes it from it.
 * Sleeping ends by a wake-up alone: the slices in which the real waiters sleep are left out, so that nothing rests on them.
 *
 * Proved: one holder at a time; nobody sleeps while the turn is free and nobody is on the way to it (no lost wake-up); who publishes builds on a delta that no dead holder
 * left half written, and on the place of the log that the last commit left.
 *
 * Mutations that must fail: LOOK_FIRST (a waiter looks at the turn, then lines up), SCAN_FIRST (who gives back looks for waiters, then frees the turn), NO_PASS_ON (who gives up
 * keeps the wake-up), SET_LATE (torn is set after the first write), CLEAR_EARLY (torn is cleared before the place of the log is stored), NO_RECOVERY (torn is not looked at). */

#define N 3
#define ROUNDS 1

byte turn = 0;                  /* process + 1 */
bool dead[N];
bool waits[N];                  /* the bit, ticket included: order is left to chance, which covers every order */
byte word[N];                   /* futex words, modulo 4 */
bool asleep[N];
byte holders = 0;               /* live processes that act as holder */
byte torn = 0;
byte half = 0;                  /* the delta has entries of a commit that was not published */
byte published = 0, place = 0;  /* newest state, and what the slot says of the log's end */
byte deaths = 0;

inline wake(i)
{
    word[i] = (word[i] + 1) % 4;
    asleep[i] = false
}

/* dbz_turn_drop, dbz_turn_leave: wake one that waits, whichever */
inline wake_next()
{
    if
    :: waits[0] -> wake(0)
    :: waits[1] -> wake(1)
    :: waits[2] -> wake(2)
    :: !waits[0] && !waits[1] && !waits[2] -> skip
    fi
}

inline mortal()
{
    if
    :: deaths < 1 -> atomic { deaths++; dead[me] = true; holders--; goto gone }
    :: true
    fi
}

proctype Process(byte me)
{
    byte seen, rounds;
    bool found, patient;
again:
    do
    :: rounds == ROUNDS -> goto gone
    :: rounds < ROUNDS ->
        rounds++;
        /* dbz_turn_try */
        found = waits[0] || waits[1] || waits[2];
        if
        :: !found ->
            atomic {
                if
                :: turn == 0 -> turn = me + 1; goto mine
                :: else -> skip
                fi
            }
        :: else -> skip
        fi;
        /* dbz_turn_join, dbz_turn_wait */
#ifdef LOOK_FIRST
        found = turn == 0;
        waits[me] = true;
        seen = word[me];
#else
        waits[me] = true;
look:
        seen = word[me];
        found = turn == 0;
#endif
        if
        :: found ->
            atomic {
                if
                :: turn == 0 -> turn = me + 1; waits[me] = false; goto mine
                :: else -> skip
                fi
            };
#ifdef LOOK_FIRST
            found = turn == 0; seen = word[me];
            if :: found -> atomic { if :: turn == 0 -> turn = me + 1; waits[me] = false; goto mine :: else -> skip fi } :: else -> skip fi
#else
            goto look
#endif
        :: else -> skip
        fi;
        if :: patient = true :: patient = false fi;
        /* futex wait: only if nobody has bumped the word since it was read */
        atomic { if :: word[me] == seen -> asleep[me] = true :: else -> skip fi };
        if
        :: !asleep[me] ->
#ifdef LOOK_FIRST
            atomic { if :: turn == 0 -> turn = me + 1; waits[me] = false; goto mine :: else -> skip fi }
#else
            goto look
#endif
        :: atomic { turn != 0 && dead[turn - 1] -> turn = me + 1; waits[me] = false; asleep[me] = false; goto mine }
        :: asleep[me] && !patient ->            /* gives up */
            atomic { waits[me] = false; asleep[me] = false };
#ifndef NO_PASS_ON
            if
            :: turn == 0 -> wake_next()
            :: else -> skip
            fi
#endif
        fi;
        goto again
    od;
mine:
    atomic { assert(holders == 0); holders++ };
#ifndef NO_RECOVERY
    if
    :: torn != 0 -> mortal(); half = 0; mortal(); place = published; torn = 0    /* from the files, which have every published commit */
    :: else -> skip
    fi;
#endif
    /* a commit: it builds on what is there */
#ifndef SET_LATE
    torn = 1;
#endif
    mortal();
    assert(half == 0);
    assert(place == published);
    half = 1;
#ifdef SET_LATE
    mortal();
    torn = 1;
#endif
    mortal();
    atomic { published++; half = 0 };
#ifdef CLEAR_EARLY
    torn = 0;
    mortal();
    place = published;
#else
    mortal();
    place = published;
    torn = 0;
#endif
    holders--;
    /* dbz_turn_drop */
#ifdef SCAN_FIRST
    found = waits[0] || waits[1] || waits[2];
    turn = 0;
    if
    :: found -> wake_next()
    :: else -> skip
    fi;
#else
    turn = 0;
    found = waits[0] || waits[1] || waits[2];
    if
    :: found -> wake_next()
    :: else -> skip
    fi;
#endif
    goto again;
gone:
    skip
}

/* When nothing can go on any more, nobody may be asleep beside a free turn. */
proctype Watch()
{
    timeout ->
    assert(turn != 0 || !(asleep[0] || asleep[1] || asleep[2]))
}

init {
    atomic { run Process(0); run Process(1); run Process(2); run Watch() }
}
