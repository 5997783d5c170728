//! Which moments schedules mean: by example around the days on which clocks are set, and as properties.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

fn schedule(cron: &str, zone: &str) -> Schedule {
    Schedule {
        cron: cron.parse().unwrap(),
        time_zone: zone.parse().unwrap(),
        missed: Missed::default(),
        overlap: Overlap::default(),
    }
}

fn moment(text: &str) -> Timestamp {
    let moment: jiff::Timestamp = text.parse().unwrap();
    Timestamp(moment.as_millisecond().try_into().unwrap())
}

/// Tells of the next few moments after one, each with what the wall shows.
#[expect(clippy::needless_pass_by_value, reason = "expect! makes a value, and so examples stay short")]
fn check(cron: &str, zone: &str, after: &str, count: usize, expected: Expect) {
    let schedule = schedule(cron, zone);
    let mut lines = String::new();
    let mut after = moment(after);
    for _ in 0..count {
        let Some(next) = schedule.next_after(after) else { break };
        let at = jiff::Timestamp::from_millisecond(next.0.try_into().unwrap()).unwrap();
        lines.push_str(&format!("{at} {}\n", schedule.time_zone.zone.to_datetime(at)));
        after = next;
    }
    expected.assert_eq(&lines);
}

#[test]
fn a_day_without_the_time_gets_the_moment_at_which_the_clock_is_set() {
    check(
        "30 2 * * *",
        "Europe/Zurich",
        "2027-03-26T12:00:00Z",
        3,
        expect![[r#"
            2027-03-27T01:30:00Z 2027-03-27T02:30:00
            2027-03-28T01:00:00Z 2027-03-28T03:00:00
            2027-03-29T00:30:00Z 2027-03-29T02:30:00
        "#]],
    );
    // Several times in the hour that is skipped are one moment.
    check(
        "0,20,40 2 * * *",
        "Europe/Zurich",
        "2027-03-28T00:00:00Z",
        3,
        expect![[r#"
        2027-03-28T01:00:00Z 2027-03-28T03:00:00
        2027-03-29T00:00:00Z 2027-03-29T02:00:00
        2027-03-29T00:20:00Z 2027-03-29T02:20:00
    "#]],
    );
}

#[test]
fn a_time_that_a_wall_shows_twice_is_due_the_first_time() {
    check(
        "30 2 * * *",
        "Europe/Zurich",
        "2027-10-30T12:00:00Z",
        2,
        expect![[r#"
        2027-10-31T00:30:00Z 2027-10-31T02:30:00
        2027-11-01T01:30:00Z 2027-11-01T02:30:00
    "#]],
    );
    // Asked between the two.
    check(
        "30 2 * * *",
        "Europe/Zurich",
        "2027-10-31T00:45:00Z",
        1,
        expect![[r#"
        2027-11-01T01:30:00Z 2027-11-01T02:30:00
    "#]],
    );
    check(
        "*/20 2 * * *",
        "Europe/Zurich",
        "2027-10-31T00:10:00Z",
        3,
        expect![[r#"
        2027-10-31T00:20:00Z 2027-10-31T02:20:00
        2027-10-31T00:40:00Z 2027-10-31T02:40:00
        2027-11-01T01:00:00Z 2027-11-01T02:00:00
    "#]],
    );
}

#[test]
fn what_is_due_in_each_hour_goes_by_the_hours_that_pass() {
    check(
        "30 * * * *",
        "Europe/Zurich",
        "2027-10-30T23:40:00Z",
        4,
        expect![[r#"
        2027-10-31T00:30:00Z 2027-10-31T02:30:00
        2027-10-31T01:30:00Z 2027-10-31T02:30:00
        2027-10-31T02:30:00Z 2027-10-31T03:30:00
        2027-10-31T03:30:00Z 2027-10-31T04:30:00
    "#]],
    );
    check(
        "30 * * * *",
        "Europe/Zurich",
        "2027-03-28T00:00:00Z",
        3,
        expect![[r#"
        2027-03-28T00:30:00Z 2027-03-28T01:30:00
        2027-03-28T01:30:00Z 2027-03-28T03:30:00
        2027-03-28T02:30:00Z 2027-03-28T04:30:00
    "#]],
    );
    // This one sets its clock by half an hour.
    check(
        "*/15 * * * *",
        "Australia/Lord_Howe",
        "2027-04-03T14:20:00Z",
        4,
        expect![[r#"
        2027-04-03T14:30:00Z 2027-04-04T01:30:00
        2027-04-03T14:45:00Z 2027-04-04T01:45:00
        2027-04-03T15:00:00Z 2027-04-04T01:30:00
        2027-04-03T15:15:00Z 2027-04-04T01:45:00
    "#]],
    );
}

#[test]
fn a_day_that_a_place_never_had_is_no_reason_to_stop() {
    check(
        "0 12 * * *",
        "Pacific/Apia",
        "2011-12-29T12:00:00Z",
        3,
        expect![[r#"
        2011-12-29T22:00:00Z 2011-12-29T12:00:00
        2011-12-30T10:00:00Z 2011-12-31T00:00:00
        2011-12-30T22:00:00Z 2011-12-31T12:00:00
    "#]],
    );
}

#[test]
fn days_are_by_month_or_by_week() {
    check(
        "0 0 13 * fri",
        "UTC",
        "2027-08-01T00:00:00Z",
        4,
        expect![[r#"
        2027-08-06T00:00:00Z 2027-08-06T00:00:00
        2027-08-13T00:00:00Z 2027-08-13T00:00:00
        2027-08-20T00:00:00Z 2027-08-20T00:00:00
        2027-08-27T00:00:00Z 2027-08-27T00:00:00
    "#]],
    );
    check(
        "0 0 29 feb *",
        "UTC",
        "2096-03-01T00:00:00Z",
        2,
        expect![[r#"
        2104-02-29T00:00:00Z 2104-02-29T00:00:00
        2108-02-29T00:00:00Z 2108-02-29T00:00:00
    "#]],
    );
    check(
        "59 59 23 31 dec 7",
        "UTC",
        "2027-12-30T00:00:00Z",
        2,
        expect![[r#"
        2027-12-31T23:59:59Z 2027-12-31T23:59:59
        2028-12-03T23:59:59Z 2028-12-03T23:59:59
    "#]],
    );
    check(
        "@weekly",
        "America/New_York",
        "2027-03-10T00:00:00Z",
        2,
        expect![[r#"
        2027-03-14T05:00:00Z 2027-03-14T00:00:00
        2027-03-21T04:00:00Z 2027-03-21T00:00:00
    "#]],
    );
    check(
        "*/7 * * * * *",
        "UTC",
        "2027-01-01T00:00:41.5Z",
        3,
        expect![[r#"
        2027-01-01T00:00:42Z 2027-01-01T00:00:42
        2027-01-01T00:00:49Z 2027-01-01T00:00:49
        2027-01-01T00:00:56Z 2027-01-01T00:00:56
    "#]],
    );
}

#[test]
fn what_is_not_understood_says_why() {
    let texts = [
        "",
        "* * * *",
        "* * * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * foo *",
        "* * * * mon-xyz",
        "* * * * fri-mon",
        "*/0 * * * *",
        "1-2-3 * * * *",
        "+1 * * * *",
        ",1 * * * *",
        "0 0 31 feb,apr *",
        "@reboot",
    ];
    let said: Vec<String> = texts.iter().map(|text| text.parse::<Cron>().unwrap_err().to_string()).collect();
    expect![[r#"
        a schedule has five fields (minute, hour, day of the month, month, day of the week), or six with the second before them, or is one of @hourly, @daily, @weekly, @monthly and @yearly; `` has 0
        a schedule has five fields (minute, hour, day of the month, month, day of the week), or six with the second before them, or is one of @hourly, @daily, @weekly, @monthly and @yearly; `* * * *` has 4
        a schedule has five fields (minute, hour, day of the month, month, day of the week), or six with the second before them, or is one of @hourly, @daily, @weekly, @monthly and @yearly; `* * * * * * *` has 7
        `60` is no minute: there are 0 to 59
        `24` is no hour: there are 0 to 23
        `0` is no day of the month: there are 1 to 31
        `foo` is no month: there are 1 to 12, or jan to dec
        `mon-xyz` is no day of the week: there are 0 to 7, or sun to sat
        `fri-mon` is no day of the week: 5 is after 1; write `5-7,0-1`
        `*/0` is no minute: after `/` stands how far it is from one to the next, a number from 1 on
        `1-2-3` is no minute: there are 0 to 59
        `+1` is no minute: there are 0 to 59
        `,1` is no minute: there are 0 to 59
        `0 0 31 feb,apr *` is never due: none of its months has any of its days
        a schedule has five fields (minute, hour, day of the month, month, day of the week), or six with the second before them, or is one of @hourly, @daily, @weekly, @monthly and @yearly; `@reboot` has 1"#]].assert_eq(&said.join("\n"));
    let said = "Mars/Olympus\n".parse::<TimeZone>().unwrap_err().to_string();
    expect![[r#"there is no time zone `Mars/Olympus\n`; write one like "Europe/Zurich" or "UTC""#]]
        .assert_eq(&said);
    assert!("".parse::<TimeZone>().is_err() && "Etc/Unknown".parse::<TimeZone>().is_err());
}

#[test]
fn names_are_kept_as_the_database_writes_them() {
    assert_eq!("europe/zurich".parse::<TimeZone>().unwrap().to_string(), "Europe/Zurich");
    assert_eq!("utc".parse::<TimeZone>().unwrap(), TimeZone::default());
    let json = serde_json::to_string(&schedule("0 3 * * *", "Europe/Zurich")).unwrap();
    expect![[r#"{"cron":"0 3 * * *","time_zone":"Europe/Zurich","missed":"skip","overlap":"skip"}"#]]
        .assert_eq(&json);
    let short: Schedule = serde_json::from_str(r#"{"cron":"0 3 * * *"}"#).unwrap();
    assert_eq!(short, schedule("0 3 * * *", "UTC"));
}

/// Texts which are often, but not always, schedules.
fn field(max: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("*".to_owned()),
        2 => (0..=max).prop_map(|number| number.to_string()),
        1 => (0..=max, 0..=max).prop_map(|(first, last)| format!("{}-{}", first.min(last), first.max(last))),
        1 => (1..=max).prop_map(|step| format!("*/{step}")),
        1 => (0..=max, 0..=max).prop_map(|(one, other)| format!("{one},{other}")),
    ]
}

fn any_text() -> impl Strategy<Value = String> {
    let fields = (field(59), field(59), field(23), field(31), field(12), field(7));
    fields.prop_map(|(second, minute, hour, day, month, weekday)| {
        format!("{second} {minute} {hour} {day} {month} {weekday}")
    })
}

fn any_zone() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec![
        "UTC",
        "Europe/Zurich",
        "America/New_York",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
        "Africa/Casablanca",
        "Pacific/Apia",
        "America/Sao_Paulo",
    ])
}

/// A moment from 1970 to 2100, often near the days on which clocks are set.
fn any_moment() -> impl Strategy<Value = Timestamp> {
    let near = |around: &str| {
        let around = moment(around).0;
        (around - 90_000_000..around + 90_000_000).prop_map(Timestamp)
    };
    prop_oneof![
        (0..4_102_444_800_000_u64).prop_map(Timestamp),
        near("2027-03-28T01:00:00Z"),
        near("2027-10-31T01:00:00Z"),
        near("2011-12-30T10:00:00Z"),
    ]
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,40}", zone in ".{0,20}", after in any::<u64>()) {
        let _ = zone.parse::<TimeZone>();
        if let Ok(cron) = text.parse::<Cron>() {
            let json = serde_json::to_string(&cron).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Cron>(&json).unwrap(), &cron);
            let _ = Schedule { cron, ..schedule("* * * * *", "UTC") }.next_after(Timestamp(after));
        }
    }

    #[test]
    fn the_next_moment_is_later_and_shows_what_was_asked_for(
        text in any_text(), zone in any_zone(), after in any_moment()
    ) {
        let Ok(cron) = text.parse::<Cron>() else { return Ok(()) };
        let schedule = Schedule { cron, ..schedule("* * * * *", zone) };
        let mut last = after;
        for _ in 0..5 {
            let next = schedule.next_after(last).expect("what is accepted is due some time");
            prop_assert!(next > last && next.0.is_multiple_of(1_000));
            let at = jiff::Timestamp::from_millisecond(next.0.try_into().unwrap()).unwrap();
            let wall = schedule.time_zone.zone.to_datetime(at);
            let before = at.checked_sub(1.nanosecond()).unwrap();
            let is_set = schedule.time_zone.zone.to_offset(before) != schedule.time_zone.zone.to_offset(at);
            prop_assert!(schedule.cron.matches(wall) || is_set, "{} shows {}", at, wall);
            last = next;
        }
    }

    #[test]
    fn no_moment_is_left_out(text in any_text(), zone in any_zone(), after in any_moment()) {
        let Ok(cron) = text.parse::<Cron>() else { return Ok(()) };
        let schedule = Schedule { cron, ..schedule("* * * * *", zone) };
        let next = schedule.next_after(after).expect("what is accepted is due some time");
        let zone = &schedule.time_zone.zone;
        // Each second up to the next moment, or for two hours.
        let from = i64::try_from(after.0 / 1_000).unwrap() + 1;
        let until = i64::try_from(next.0 / 1_000).unwrap().min(from + 7_200);
        for second in from..until {
            let at = jiff::Timestamp::from_second(second).unwrap();
            let wall = zone.to_datetime(at);
            if schedule.cron.matches(wall) {
                // Only the second time that a wall shows it does not count.
                let first = schedule.first_moment(wall).unwrap();
                prop_assert!(!schedule.cron.is_each_hour() && first < at, "{} was left out", at);
            }
        }
    }
}
