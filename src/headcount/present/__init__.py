"""How answers look to people: tables and sentences in English and Russian. The only room with sentences for users."""
