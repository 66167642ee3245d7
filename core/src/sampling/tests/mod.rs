//! Tests of the samplers against closed forms and published figures.
