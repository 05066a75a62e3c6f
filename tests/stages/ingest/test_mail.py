"""Plain-text mails: quoted mails, headers and signatures are left out, and other text is left alone."""

import pytest

from multicsr.stages.ingest.html_text import to_plain_text
from multicsr.stages.ingest.mail import own_text
from multicsr.stages.ingest.record import Record

MINE = "The printer is broken.\nIt smells of smoke.\n"


@pytest.mark.parametrize(
    "rest",
    [
        "On Mon, 3 Jan 2022 at 10:11, Joe <joe@example.com> wrote:\n> old\n>> older\n",
        "On Mon, 3 Jan 2022 at 10:11, Joe\n<joe@example.com> wrote:\n\nold\nold too\n",
        "Am 03.01.2022 um 10:11 schrieb Joe Doe:\n> alt\n",
        "Am Mo., 3. Jan. 2022 um 10:11 Uhr schrieb Joe <joe@example.com>:\n\nalt\n",
        "Le lun. 3 janv. 2022 à 10:11, Joe <joe@example.com> a écrit :\n> ancien\n",
        "El lun, 3 ene 2022 a las 10:11, Joe (<joe@example.com>) escribió:\n> viejo\n",
        "Il giorno lun 3 gen 2022 alle ore 10:11 Joe <joe@example.com> ha scritto:\n> vecchio\n",
        "Em seg., 3 de jan. de 2022 às 10:11, Joe <joe@example.com> escreveu:\n> velho\n",
        "Op ma 3 jan. 2022 om 10:11 schreef Joe <joe@example.com>:\n> oud\n",
        "From: Joe\nSent: Monday\nTo: Ann\nSubject: Printer\n\nold\n",
        "Von: Joe\nGesendet: Montag\nAn: Ann\nBetreff: Drucker\n\nalt\n",
        "De : Joe\nEnvoyé : lundi\nÀ : Ann\nObjet : imprimante\n\nancien\n",
        "De: Joe\nEnviado el: lunes\nPara: Ann\nAsunto: impresora\n\nviejo\n",
        "-----Original Message-----\nFrom: Joe\nold\n",
        "-------- Original-Nachricht --------\nalt\n",
        "---------- Forwarded message ---------\nold\n",
        "-- \nAnn Lee\nHead of Printing\n+49 30 123456\n",
        "--\nAnn Lee\nHead of Printing.\n",
        "Thanks\nACME Inc.\nAll of our offices are closed.\n",
        "Best regards,\nAnn Lee\n",
        "Kind regards\n\nAnn Lee\nHead of Printing\n",
        "Mit freundlichen Grüßen\nAnn Lee\n",
        "Cordialement,\nAnn Lee\n",
        "Un saludo,\nAnn\n",
        "Sent from my iPhone\n",
        "Von meinem iPhone gesendet\n",
    ],
)
def test_what_is_not_the_writers_own_text_is_left_out(rest):
    assert own_text(f"{MINE}\n{rest}").strip() == MINE.strip()
    assert to_plain_text(Record(f"{MINE}\n{rest}")).text.strip() == MINE.strip()


def test_answers_between_quotes_are_kept():
    mail = (
        "On Mon at 10:11 Joe wrote:\n> Is it on?\n\nYes, it is.\n\n> And warm?\nIt is hot.\n\nRegards\nAnn\n"
    )
    assert own_text(mail).split("\n\n") == ["\nYes, it is.", "It is hot.\n"]


def test_header_of_the_mail_itself_is_left_out_and_its_text_kept():
    mail = "From: ann@example.com\nTo: joe@example.com\nSubject: Printer\n\n" + MINE
    assert own_text(mail).strip() == MINE.strip()


@pytest.mark.parametrize(
    "text",
    [
        "A poem has lines\nand lines again.\n",
        "On the first of May he wrote:\n\nMy dear friend, all is lost.\nYours in haste.\n",
        "> a quote in Markdown\n\nThe text below it.\n",
        ">>> print(1)\n1\n",
        "From: here to there\nit is a long way.\n",
        "Best regards,\n" + "a paragraph that is too long for a signature, and goes on and on " * 3 + "\n",
        "Best regards are sent by all.\nThe end.\n",
        "Thanks\nfor all the fish.\nIt was good.\n",
        "He said:\nThanks.\nThen he left the room.\n",
        "Thanks!\n\nEDIT: solved by another driver.\n",
        "The woods are lovely, dark and deep.\n--\nAnd miles to go before I sleep.\n",
        "On the table lay a letter. At 10:30 she wrote:\nDear Mary, all is lost.\nThe end.\n",
        "title\n--\n" + "\n".join(f"line {i} of a table" for i in range(20)) + "\n",
    ],
)
def test_text_that_is_no_mail_is_left_alone(text):
    record = Record(text)
    assert own_text(text) == text
    assert to_plain_text(record) is record


def test_time_is_linear_in_the_text():
    lines = ["On a day at 10:11", "From: x", "Best regards", "> y", "-- ", "Am 10:11"] * 50_000
    assert own_text("\n".join(lines))
