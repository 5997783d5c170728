;; What a node's computing is measured by: integer arithmetic, branches, memory and calls in about the mix of
;; compiled programs. `run` goes through its loop as often as it is told.
(module
  (memory 1)
  (func $mix (param $x i32) (result i32)
    (i32.xor (i32.mul (local.get $x) (i32.const 0x9E3779B1)) (i32.shr_u (local.get $x) (i32.const 15))))
  (func (export "run") (param $rounds i32) (result i32)
    (local $x i32)
    (local $at i32)
    (local.set $x (i32.const 1))
    (loop $again
      (local.set $x (call $mix (i32.add (local.get $x) (local.get $rounds))))
      (local.set $at (i32.and (local.get $x) (i32.const 0xFFFC)))
      (i32.store (local.get $at) (i32.add (i32.load (local.get $at)) (local.get $x)))
      (if (i32.and (local.get $x) (i32.const 1))
        (then (local.set $x (i32.rotl (local.get $x) (i32.const 7)))))
      (local.set $rounds (i32.sub (local.get $rounds) (i32.const 1)))
      (br_if $again (local.get $rounds)))
    (local.get $x)))
