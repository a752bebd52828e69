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

byte generation[3];             /* of the process slots; fillers are slots 0 and 1, a tenant follows in slot 0 */
bool lives[3];                  /* the byte lock of the slot is held */
byte finished = 0;

#ifdef SLOT_ONLY
#define DEAD(s, g) (!lives[s])
#else
#define DEAD(s, g) (generation[s] != g || !lives[s])
#endif

inline fill(slot, page)
{
    byte c, s, g;
    bool odd, mine;
    mine = false;
    atomic { c = v_count; odd = v_odd; s = v_slot; g = v_generation };
    if
    :: odd ->
#ifdef TAKE_LIVE
        may = true
#else
        may = DEAD(s, g)
#endif
    :: else -> may = true
    fi;
    if
    :: may ->
        atomic {                /* CAS: even or dead odd to our odd */
            if
            :: v_count == c && v_odd == odd && v_slot == s && v_generation == g ->
                v_odd = true; v_slot = slot; v_generation = generation[slot]; mine = true
            :: else
            fi
        }
    :: else
    fi;
    if
    :: mine ->
        tag = page;
        word0 = page;
        word1 = page;
#ifdef SAME_COUNT
        atomic { v_odd = false; v_slot = 0; v_generation = 0 }
#else
        atomic { v_odd = false; v_count = c + 1; v_slot = 0; v_generation = 0 }
#endif
    :: else
    fi
}

proctype Filler(byte slot; byte page)
{
    bool may;
    fill(slot, page);
    fill(slot, 3 - page);
    finished++
}

/* The same, but may be killed between any two steps. */
proctype Mortal(byte page)
{
    bool may;
    {
        fill(0, page)
    } unless {
        lives[0] == false
    };
    finished++
}

proctype Killer()
{
    if
    :: true ->
        lives[0] = false;
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
    :: rounds < 2 ->
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
    finished == 4;
    /* Slot 1's filler is through, slot 0's too or killed: an odd frame is a dead one's, and is known to be. */
    atomic { assert(!v_odd || DEAD(v_slot, v_generation)) }
}

init {
    atomic {
        lives[0] = true; lives[1] = true;
        generation[0] = 1; generation[1] = 1;
        run Mortal(1); run Filler(1, 2); run Killer(); run Reader(1); run Janitor()
    }
}
