/* Filling a frame of the page cache against readers, eviction and fillers that die (csrc/cache.c).
 *
 * One frame, two pages that want it. Content is two words, both a function of the page. Fillers claim the frame by compare-and-swap on its version word, which carries
 * a count, and while odd the filler's process slot and that slot's generation. The filler in slot 0 may die at any step; its slot may then be taken by a
 * new process. Another filler takes the frame from it only when it is known to be dead. At the end a janitor looks at the frame.
 *
 * Proved: a reader whose version is the same after the copy as before it copied the page it asked for, whole; and a frame left by a dead filler can always be taken
 * back in the end.
 *
 * Mutations that must fail: NO_RECHECK (the reader doesn't look at the version again), TAKE_LIVE (an odd frame is taken without proof of death), SAME_COUNT (the
 * count doesn't grow, so that two fills look the same), SLOT_ONLY (the version names the slot without its generation: the next tenant's life covers for the dead). */

/* the version word: one word in memory, several fields here, always accessed in one step */
byte v_count = 0;
bool v_odd = false;
byte v_slot = 0, v_generation = 0;

byte tag = 0, word0 = 0, word1 = 0;

byte generation[3];             /* of the process slots; fillers are in all three, a tenant may follow in slot 0 */
bool lives[3];                  /* the byte lock of the slot is held */
bool killed = false;           /* the filler in slot 0 takes no further step */
byte finished = 0;

#ifdef SLOT_ONLY
#define DEAD(s, g) (!lives[s])
#else
#define DEAD(s, g) (generation[s] != g || !lives[s])
#endif

/* One step of a filler; slot 0's may have been killed before it. */
#define STEP(action) atomic { if :: mortal && killed -> goto gone :: else fi; action }

proctype Filler(byte slot; byte page; bool mortal)
{
    byte c, s, g;
    bool odd, may, mine;
    STEP(c = v_count; odd = v_odd; s = v_slot; g = v_generation);
#ifdef TAKE_LIVE
    STEP(may = true);
#else
    STEP(may = (!odd || DEAD(s, g)));
#endif
    if
    :: may ->
        atomic {                /* CAS: even or dead odd to our odd */
            if
            :: !(mortal && killed) && v_count == c && v_odd == odd && v_slot == s && v_generation == g ->
                v_odd = true; v_slot = slot; v_generation = 1; mine = true
            :: else
            fi
        }
    :: else
    fi;
    if
    :: mine ->
        STEP(tag = page);
        STEP(word0 = page);
        STEP(word1 = page);
#ifdef SAME_COUNT
        STEP(v_odd = false; v_count = 1; v_slot = 0; v_generation = 0)
#else
        STEP(v_odd = false; v_count = c + 1; v_slot = 0; v_generation = 0)
#endif
    :: else
    fi;
gone:
    finished++
}

proctype Killer()
{
    if
    :: true ->
        atomic { killed = true; lives[0] = false };
        if
        :: true ->              /* a new process takes the slot: wiped, then filled */
            atomic { generation[0] = generation[0] + 1; lives[0] = true }
        :: true
        fi
    :: true
    fi;
    finished++
}

proctype Reader(byte page)
{
    byte c, t, a, b;
    byte rounds;
    do
    :: rounds < 1 ->
        rounds++;
        if
        :: atomic { !v_odd && v_count > 0 -> c = v_count };
            t = tag;
            a = word0;
            b = word1;
#ifndef NO_RECHECK
            if
            :: v_odd || v_count != c -> goto miss
            :: else
            fi;
#endif
            if
            :: t == page -> assert(a == page && b == page)
            :: else
            fi
        :: atomic { (v_odd || v_count == 0) -> skip }
        fi;
miss:
        skip
    :: else -> break
    od;
    finished++
}

proctype Janitor()
{
    finished == 5;
    /* The fillers are through or killed: an odd frame is a dead one's, and is known to be. */
    atomic { assert(!v_odd || DEAD(v_slot, v_generation)) }
}

init {
    atomic {
        lives[0] = true; lives[1] = true; lives[2] = true;
        generation[0] = 1; generation[1] = 1; generation[2] = 1;
        run Filler(0, 1, true); run Filler(1, 2, false); run Filler(2, 1, false); run Killer(); run Reader(1); run Janitor()
    }
}
