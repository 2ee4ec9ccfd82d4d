//! Stage 3b: who needs whom in, for each module all that it needs out, in depmod(8)'s order.
//!
//! depmod numbers the modules so that each stands before all that it needs: it takes those that nobody
//! needs from a stack, the last of the list first, and puts on it whoever has no user left. Of one
//! module, all that it needs is listed by these numbers; loading goes through the list backwards.
#![forbid(unsafe_code)]

/// For each module the modules that it needs, directly or not.
///
/// `needs[i]` are the modules that module `i` names, in the order in which it does, without doubles;
/// modules are numbered in the order of `modules.order`. Modules that need each other have no order
/// and cannot be loaded; they stand in some, so that what only needs the same as they do is not lost.
pub(super) fn all_needed(needs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let place = places(needs);
    let mut all = Vec::with_capacity(needs.len());
    let mut seen_by = vec![usize::MAX; needs.len()];
    for module in 0..needs.len() {
        let mut list = Vec::new();
        let mut open: Vec<usize> = needs[module].clone();
        while let Some(next) = open.pop() {
            if seen_by[next] != module {
                seen_by[next] = module;
                open.extend(&needs[next]);
                list.push(next);
            }
        }
        list.retain(|needed| *needed != module);
        list.sort_unstable_by_key(|needed| place[*needed]);
        all.push(list);
    }
    all
}

/// Each module's number.
fn places(needs: &[Vec<usize>]) -> Vec<usize> {
    let mut users = vec![0_usize; needs.len()];
    for needed in needs.iter().flatten() {
        users[*needed] += 1;
    }
    let mut free: Vec<usize> = (0..needs.len()).filter(|module| users[*module] == 0).collect();
    let mut place = vec![usize::MAX; needs.len()];
    let mut next = 0;
    let mut unplaced = 0..needs.len();
    loop {
        while let Some(module) = free.pop() {
            if place[module] != usize::MAX {
                continue;
            }
            place[module] = next;
            next += 1;
            for needed in &needs[module] {
                users[*needed] -= 1;
                if users[*needed] == 0 {
                    free.push(*needed);
                }
            }
        }
        match unplaced.find(|module| place[*module] == usize::MAX) {
            // the circle, and not what is only needed by it
            Some(module) => free.push(one_of_the_circle(needs, &place, module)),
            None => return place,
        }
        unplaced.start = 0;
    }
}

/// Goes from a module without a place from user to user until one comes again.
fn one_of_the_circle(needs: &[Vec<usize>], place: &[usize], module: usize) -> usize {
    let mut user_of = vec![module; needs.len()];
    for (user, needed) in needs.iter().enumerate().filter(|(user, _)| place[*user] == usize::MAX) {
        needed.iter().for_each(|needed| user_of[*needed] = user);
    }
    let mut seen = vec![false; needs.len()];
    let mut at = module;
    while !std::mem::replace(&mut seen[at], true) {
        at = user_of[at];
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_first_comes_last() {
        // 0 needs 1 and 2, both need 3
        let needs = [vec![1, 2], vec![3], vec![3], vec![]];
        assert_eq!(all_needed(&needs), [vec![2, 1, 3], vec![3], vec![3], vec![]]);
    }

    #[test]
    fn a_circle_takes_nothing_from_others() {
        let needs = [vec![1], vec![0], vec![0, 3], vec![]];
        assert_eq!(all_needed(&needs), [vec![1], vec![0], vec![3, 0, 1], vec![]]);
        let needs = [vec![1, 2], vec![0, 2], vec![3], vec![]];
        assert_eq!(all_needed(&needs), [vec![1, 2, 3], vec![0, 2, 3], vec![3], vec![]]);
    }
}
