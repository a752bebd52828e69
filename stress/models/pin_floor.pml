/* Pinned states against the floor (csrc/pins.c, csrc/segment.h at dbz_proc).
 *
 * A reader pins a state, checks the floor, uses the state, moves the pin forwards or lets go; another finds no room for its pin and pins everything. The raiser
 * announces a floor, scans the pins one by one, settles the floor and drops what is below. It may die after any step; a successor (one at a time: the checkpoint lock)
 * starts over with what the words say.
 *
 * Proved: no state is dropped while it is pinned and in use.
 *
 * Every word is accessed seq_cst, which is what lets this model interleave whole steps. Weaker orders would let a store pass a later load, which is the
 * same as the first two mutations. Mutations that must fail: CHECK_FIRST (the reader checks the floor before it stores the pin), SCAN_FIRST (the raiser scans before it
 * announces), TRUST_ANNOUNCED (a raiser that finds everything pinned falls back on the announced floor, which a dead predecessor may have left too high,
 * instead of the confirmed one). */

#define NEWEST 3
#define TURNS 1      /* of each reader: it may begin at any moment */

byte pin[2];                    /* 0: free */
byte pin_all = 0;
byte floor = 0, floor_set = 0;
byte dropped = 0;               /* states below are gone */

proctype Pinner(byte me)
{
    byte state, rounds;
    do
    :: rounds < TURNS ->
        rounds++;
        atomic { select(state : 1 .. NEWEST) };
#ifdef CHECK_FIRST
        if
        :: floor > state -> goto next
        :: else
        fi;
        pin[me] = state;
#else
        pin[me] = state;
        if
        :: floor > state -> pin[me] = 0; goto next
        :: else
        fi;
#endif
        if
        :: state < NEWEST ->
            state++;
            pin[me] = state     /* dbz_repin, forwards: no check */
        :: true
        fi;
        assert(dropped <= state);
        pin[me] = 0
next:
        skip
    :: else -> break
    od
}

proctype Everything()
{
    byte state;
    atomic { select(state : 1 .. NEWEST) };
    pin_all = 1;
    if
    :: floor > state -> skip
    :: else -> assert(dropped <= state)
    fi;
    pin_all = 0
}

proctype Raiser()
{
    byte wanted, low, announced, rounds, i;
again:
    do
    :: rounds < 2 ->
        rounds++;
        atomic { select(wanted : 1 .. NEWEST) };
        if :: wanted <= floor_set -> goto again :: else fi;
        announced = floor;
#ifndef SCAN_FIRST
        floor = wanted;
#endif
        if :: goto again :: true fi;            /* dies here */
        low = NEWEST + 1;
        i = 0;
        do
        :: i < 2 ->
            d_step { if :: pin[i] != 0 && pin[i] < low -> low = pin[i] :: else fi; i++ }
        :: else -> break
        od;
        if :: pin_all -> low = 0 :: else fi;
#ifdef SCAN_FIRST
        floor = wanted;
#endif
        if :: goto again :: true fi;            /* or here */
        if :: low > wanted -> low = wanted :: else fi;
#ifdef TRUST_ANNOUNCED
        if :: low < announced -> low = announced :: else fi;
#endif
        if :: low < floor_set -> low = floor_set :: else fi;
        floor = low;
        floor_set = low;
        if :: goto again :: true fi;            /* or here */
        dropped = low
    :: else -> break
    od
}

init {
    atomic { run Pinner(1); run Everything(); run Raiser() }
}
