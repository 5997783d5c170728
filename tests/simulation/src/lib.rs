//! Both brains in a faulty world, driven by seeds.
