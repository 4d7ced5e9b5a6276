"""chatsmith"""
