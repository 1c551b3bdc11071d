pub struct Entity;
