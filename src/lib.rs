pub mod clock;
pub mod ids;
pub mod keys;
pub mod sealing;
