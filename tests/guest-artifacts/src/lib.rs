//! Builds the guests and gives one constant per component, so that no test holds a path.
